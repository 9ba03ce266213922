package platform

func mailPrograms(MailOptions) []MailProgram { return nil }
