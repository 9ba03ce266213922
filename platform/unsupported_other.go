//go:build !linux && !darwin

package platform

import (
	"context"
	"net"
)

// Until a system's column is built, each of its capabilities says so.

func secrets(string) (SecretStore, error)            { return nil, ErrUnsupported }
func newPrompter() Prompter                          { return unsupportedPrompter{} }
func currentUser() (User, error)                     { return User{}, ErrUnsupported }
func listen(string) (net.Listener, error)            { return nil, ErrUnsupported }
func dial(context.Context, string) (net.Conn, error) { return nil, ErrUnsupported }
func peerOf(net.Conn) (Peer, error)                  { return Peer{}, ErrUnsupported }
func systemPaths() Paths                             { return Paths{} }
func thisMachine() Machine                           { return Machine{} }

type unsupportedPrompter struct{}

func (unsupportedPrompter) Ask(context.Context, Question) (Answer, error) {
	return "", ErrUnsupported
}
func (unsupportedPrompter) Enter(context.Context, Entry) (string, error) { return "", ErrUnsupported }
func (unsupportedPrompter) Notify(context.Context, Notice) error         { return ErrUnsupported }
