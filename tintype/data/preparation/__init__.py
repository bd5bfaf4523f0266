"""How a source becomes a prepared data set (`tintype prepare`): what is found, what is made of it, what is told."""
