create schema waypost
