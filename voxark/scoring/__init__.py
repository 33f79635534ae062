"""Scores of trials: back-ends, enrolment, blocks of pairs, dense matrices, normalisation by cohorts."""
