"""The console command `understudy`: one file for each verb."""
