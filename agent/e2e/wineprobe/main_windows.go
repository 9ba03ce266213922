// Command wineprobe is a small program of the tests under Wine: it keeps the
// prefix alive, says who it is, and squats on a pipe's name as an impostor would.
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/Microsoft/go-winio"

	"smime-agent/platform"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 1 && args[0] == "whoami":
		u, err := platform.CurrentUser()
		fmt.Println(u.Account)
		return err
	case len(args) == 2 && args[0] == "squat":
		return squat(args[1])
	}
	time.Sleep(time.Hour)
	return nil
}

// squat holds a pipe that belongs to an account that nobody has.
func squat(name string) error {
	l, err := winio.ListenPipe(name, &winio.PipeConfig{SecurityDescriptor: "O:S-1-5-21-1-2-3-1001D:P(A;;GA;;;WD)"})
	if err != nil {
		return err
	}
	defer l.Close()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		defer c.Close()
	}
}
