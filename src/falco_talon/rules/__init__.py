"""The rules: files → blocks → merged rules → bound rules, and which of them an event matches."""
