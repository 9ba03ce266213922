//go:build !windows

package platform

func readPolicy(string) (Policy, error) { return Policy{}, ErrUnsupported }
