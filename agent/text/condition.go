package text

// About says whom and what a condition concerns. Empty fields are filled with
// general words.
type About struct {
	User, Mailbox   string
	Server, Contact string
	// Program is a mail program, as people call it.
	Program string
	// Date is when something ends or ended, ready to be read.
	Date string
}

// Explanation is a condition for people: a few words, one sentence what is
// wrong, one what to do.
type Explanation struct {
	Title, Text, Cure string
}

// Explain puts a condition into words. A code that the catalog does not know
// (from a newer service) is explained by itself.
func (t *Text) Explain(code string, a About) Explanation {
	data := t.who("", a.Contact, a.Mailbox)
	for name, value := range map[string]string{"User": a.User, "Mailbox": a.Mailbox, "Server": a.Server, "Program": a.Program, "Date": a.Date} {
		if value == "" {
			value = t.Say("who."+name, nil)
		}
		data[name] = value
	}
	if !t.Knows(code) {
		return Explanation{Title: code, Text: t.Say("who.unknown", map[string]any{"Code": code}), Cure: t.Say("who.update", nil)}
	}
	base := "condition." + code
	return Explanation{
		Title: t.Say(base+".title", data),
		Text:  t.Say(base+".text", data),
		Cure:  t.Say(base+".cure", data),
	}
}

// Knows says whether the catalog explains a condition.
func (t *Text) Knows(code string) bool {
	name := "condition." + code + ".title"
	return t.Say(name, nil) != name
}
