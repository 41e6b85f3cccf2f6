"""Self-checks, one module a topic. Each says what is wrong and never what would be right."""
