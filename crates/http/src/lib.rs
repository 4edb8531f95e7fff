//! actix-web glue: ruma requests and responses, router, listeners, errors.
