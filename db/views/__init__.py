"""Questions over several tables, answered as support and operators read them."""
