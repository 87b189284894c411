"""What people look at: lines, tables and pictures of trials, and comparisons."""
