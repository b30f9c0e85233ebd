"""Entry points for schedulers and clusters: each is a few lines over `bulkembed run`."""
