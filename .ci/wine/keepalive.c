/* Does nothing for as long as the tests run. Wine ends its own services when
 * the last ordinary process ends, and starting them again takes seconds. */
#include <windows.h>

int main(void)
{
    Sleep(INFINITE);
    return 0;
}
