"""Plans under a budget, surgery, refit and recovery."""
