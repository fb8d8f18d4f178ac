"""Control of classic systems whose physics differ from task to task."""
