package platform

func mailPrograms(MailOptions) []MailProgram { return []MailProgram{outlookClassic{}, outlookNew{}} }
