"""Every cell written out from its paper, in another shape than the library's: what each form is held against."""
