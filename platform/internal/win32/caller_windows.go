package win32

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/windows"
)

// AsCaller lets ask look at the token of the client at the other end of a
// pipe's server end. Any error means that nobody knows who the client is.
func AsCaller(pipe uintptr, ask func(windows.Token) error) error {
	// A thread wears the client's token, so no other goroutine may come onto it.
	runtime.LockOSThread()
	if err := impersonate(pipe); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	// Nothing but this is done in the client's name.
	token, failed := threadToken()
	if err := windows.RevertToSelf(); err != nil {
		// This thread would go on with another's rights. Microsoft tells such a
		// process to end at once (RevertToSelf, Remarks).
		fmt.Fprintln(os.Stderr, "a thread did not get its own identity back:", err)
		os.Exit(3) //nolint:forbidigo // see above
	}
	runtime.UnlockOSThread()
	if failed != nil {
		return failed
	}
	defer func() { _ = token.Close() }()
	return ask(token)
}

func impersonate(pipe uintptr) error {
	ok, _, err := procImpersonateNamedPipeClient.Call(pipe)
	if ok == 0 {
		return fmt.Errorf("impersonate the pipe's client: %w", failure(err))
	}
	return nil
}

func threadToken() (token windows.Token, err error) {
	// openAsSelf: a token at identification level opens nothing, not even itself.
	if err := windows.OpenThreadToken(windows.CurrentThread(), windows.TOKEN_QUERY, true, &token); err != nil {
		return 0, fmt.Errorf("open the client's token: %w", err)
	}
	return token, nil
}
