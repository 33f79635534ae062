"""Small trees in the layouts of the publishers of corpora, for the tests of the recipes."""
