"""Commands that compare a submission's personas with a survey's respondents."""
