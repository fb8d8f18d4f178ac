"""The report: pictures and one page, drawn from results.json alone."""
