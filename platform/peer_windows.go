package platform

import (
	"fmt"
	"net"

	"golang.org/x/sys/windows"

	"smime-agent/platform/internal/win32"
)

func peerOf(c net.Conn) (Peer, error) {
	end, ok := c.(pipeEnd)
	if !ok {
		return Peer{}, fmt.Errorf("%w: a %T has no peer that the system knows", ErrUnsupported, c)
	}
	if !end.server {
		return serverOf(end)
	}
	h, err := end.handle()
	if err != nil {
		return Peer{}, err
	}
	var p Peer
	err = win32.AsCaller(uintptr(h), func(token windows.Token) (err error) {
		p, err = named(token)
		return err
	})
	if err != nil {
		return Peer{}, fmt.Errorf("%w: ask who calls: %w", ErrDenied, err)
	}
	var pid uint32
	if windows.GetNamedPipeClientProcessId(h, &pid) == nil {
		p.PID = int(pid)
	}
	return p, nil
}

// sidAnonymous is who connects without letting the server know him.
const sidAnonymous = "S-1-5-7"

// named reads a token. An administrator whose token is filtered, as it is until
// he elevates, is none.
func named(token windows.Token) (Peer, error) {
	user, err := token.GetTokenUser()
	if err != nil {
		return Peer{}, fmt.Errorf("read the token's user: %w", err)
	}
	sid := user.User.Sid
	if sid.String() == sidAnonymous {
		return Peer{}, fmt.Errorf("the caller is anonymous")
	}
	admins, err := windows.StringToSid(sidAdministrators)
	if err != nil {
		return Peer{}, err
	}
	admin, err := token.IsMember(admins)
	if err != nil {
		return Peer{}, fmt.Errorf("read the token's groups: %w", err)
	}
	return Peer{User: sid.String(), Admin: admin || sid.String() == sidSystem}, nil
}

// serverOf is the other end as the client knows it: the pipe's owner.
func serverOf(end pipeEnd) (Peer, error) {
	owner, err := pipeOwner(end)
	if err != nil {
		return Peer{}, err
	}
	p := Peer{User: owner, Admin: owner == sidSystem}
	if h, err := end.handle(); err == nil {
		var pid uint32
		if windows.GetNamedPipeServerProcessId(h, &pid) == nil {
			p.PID = int(pid)
		}
	}
	return p, nil
}
