"""Many runs compared: trials, leaderboards and tuning."""
