package platform

import "os"

func newPrompter() Prompter {
	return promptChain{
		ask:  []Prompter{zenity{}, kdialog{}, notifier{}, terminal{}},
		tell: []Prompter{notifier{}, terminal{}},
	}
}

// graphical says that this session has a display to show a dialog on.
func graphical() bool {
	return os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != ""
}
