//! PURE. What is known of gunicorn, uWSGI and other servers, as data. Never starts or asks one.
