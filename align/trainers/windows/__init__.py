"""Trains on windows of answers that go on in the next step."""
