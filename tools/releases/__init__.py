"""What was released: kept in the repository, so that the present code can be tested against it without network and history."""
