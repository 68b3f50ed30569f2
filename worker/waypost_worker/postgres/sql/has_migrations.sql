select to_regclass('waypost.migrations') is not null
