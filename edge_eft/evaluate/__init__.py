"""Does the method work: questions, judges, the gap that is recovered."""
