package win32

import (
	"fmt"
	"runtime"
	"time"
	"unicode/utf16"
	"unsafe"

	"golang.org/x/sys/windows"
)

var (
	procShellNotifyIcon = shell32.NewProc("Shell_NotifyIconW")
	procCreateWindow    = user32.NewProc("CreateWindowExW")
	procDestroyWindow   = user32.NewProc("DestroyWindow")
	procLoadIcon        = user32.NewProc("LoadIconW")
)

// notifyIconData is NOTIFYICONDATAW (shellapi.h).
type notifyIconData struct {
	size        uint32
	window      uintptr
	id, flags   uint32
	callback    uint32
	icon        uintptr
	tip         [128]uint16
	state, mask uint32
	info        [256]uint16
	timeout     uint32
	infoTitle   [64]uint16
	infoFlags   uint32
	guid        windows.GUID
	balloonIcon uintptr
}

const (
	nimAdd, nimDelete        = 0, 2
	nifIcon, nifTip, nifInfo = 2, 4, 16
	niifInfo, niifQuietTime  = 1, 0x80
	iconInformation          = 32516 // IDI_INFORMATION
	messageOnly              = ^uintptr(2)
	noticeStays              = 15 * time.Second
)

// Notice shows a message in the corner of the screen, which Windows 10 and later
// show as a toast and keep to the user's quiet hours. It returns when the message
// is shown; the icon that it hangs on goes a while later.
func Notice(title, text string) error {
	shown := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // a window belongs to its thread
		defer runtime.UnlockOSThread()
		data, err := showNotice(title, text)
		shown <- err
		if err != nil {
			return
		}
		time.Sleep(noticeStays)
		_, _, _ = procShellNotifyIcon.Call(nimDelete, uintptr(unsafe.Pointer(data)))
		_, _, _ = procDestroyWindow.Call(data.window)
	}()
	return <-shown
}

func showNotice(title, text string) (*notifyIconData, error) {
	class, err := windows.UTF16PtrFromString("STATIC")
	if err != nil {
		return nil, err
	}
	window, _, err := procCreateWindow.Call(0, uintptr(unsafe.Pointer(class)), 0, 0, 0, 0, 0, 0, messageOnly, 0, 0, 0)
	if window == 0 {
		return nil, fmt.Errorf("CreateWindowExW: %w", failure(err))
	}
	icon, _, _ := procLoadIcon.Call(0, iconInformation)
	data := &notifyIconData{window: window, id: 1, flags: nifIcon | nifTip | nifInfo, icon: icon, infoFlags: niifInfo | niifQuietTime}
	data.size = uint32(unsafe.Sizeof(*data))
	fit(data.tip[:], title)
	fit(data.infoTitle[:], title)
	fit(data.info[:], text)
	if ok, _, err := procShellNotifyIcon.Call(nimAdd, uintptr(unsafe.Pointer(data))); ok == 0 {
		_, _, _ = procDestroyWindow.Call(window)
		return nil, fmt.Errorf("Shell_NotifyIconW: %w", failure(err))
	}
	return data, nil
}

// fit writes as much of a text as there is room for, and whole letters only.
func fit(room []uint16, text string) {
	at := 0
	for _, r := range text {
		units := utf16.AppendRune(nil, r)
		if at+len(units) > len(room)-1 {
			return
		}
		at += copy(room[at:], units)
	}
}
