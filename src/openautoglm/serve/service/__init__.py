"""Asks become orders of ids, pieces of ids become text; queue, deadlines and the end are kept here. No HTTP."""
