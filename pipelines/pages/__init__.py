"""What the HTML pages of reports have in common: style, tables, charts. A page needs nothing beside it."""
