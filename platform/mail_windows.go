package platform

func mailPrograms(o MailOptions) []MailProgram {
	return []MailProgram{outlookClassic{}, outlookNew{}, ownThunderbird(o)}
}
