"""Back-end of speaker verification: utterance vectors and what is done to them before and in scoring."""
