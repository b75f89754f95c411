"""What `check` knows: facts are gathered (`gather`), judged by pure functions (`judge`) and printed (`report`)."""
