"""What clips are judged by, and every interval."""
