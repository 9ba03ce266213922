package platform

import (
	"context"
	"net"
)

func secrets(string) (SecretStore, error)            { return nil, ErrUnsupported }
func newPrompter() Prompter                          { return nil }
func currentUser() (User, error)                     { return User{}, ErrUnsupported }
func listen(string) (net.Listener, error)            { return nil, ErrUnsupported }
func dial(context.Context, string) (net.Conn, error) { return nil, ErrUnsupported }
func peerOf(net.Conn) (Peer, error)                  { return Peer{}, ErrUnsupported }
func systemPaths() Paths                             { return Paths{} }
func thisMachine() Machine                           { return Machine{} }
