"use strict";
// Everything here is a comfort: each page works without it.
