"""Tables, figures and moving pictures: how results are registered, compared and shown."""
