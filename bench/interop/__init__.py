"""Other people's files: import, evaluation, export and diagnosis; and checks of contributed results."""
