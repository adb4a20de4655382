"""Doing things with detectors: predict, evaluate, train, and keep what was learnt."""
