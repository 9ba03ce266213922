package platform

func newPrompter() Prompter {
	dialog := osascript{path: osascriptPath}
	return promptChain{ask: []Prompter{dialog}, tell: []Prompter{dialog}}
}
