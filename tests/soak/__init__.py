"""Many short trainings with random settings, some of them stopped by signals and resumed: ``make soak``."""
