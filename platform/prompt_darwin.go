package platform

func newPrompter() Prompter {
	dialog := osascript{path: "/usr/bin/osascript"}
	return promptChain{ask: []Prompter{dialog}, tell: []Prompter{dialog}}
}
