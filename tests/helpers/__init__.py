"""What tests share: the program run here and as a process, records, methods, networks, files of others."""
