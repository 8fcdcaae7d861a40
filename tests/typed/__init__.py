"""Programs as people write them, whose keys keep their types without a cast."""
