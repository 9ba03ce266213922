package platform

func mailPrograms(o MailOptions) []MailProgram { return []MailProgram{ownThunderbird(o)} }
