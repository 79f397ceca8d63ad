"""Measures policies on pairs of answers: ranking, calibration, implicit reward."""
