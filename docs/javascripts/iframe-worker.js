// The manual's search runs in a worker, and pages that are opened from a disk may not start one. There the worker's script
// runs in a hidden frame of the page, with the same messages. Elsewhere nothing is changed.
if (location.protocol === 'file:') {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super()
      this.frame = document.createElement('iframe')
      this.frame.hidden = true
      this.loaded = new Promise((resolve, reject) => {
        const start = () => {
          const inside = this.frame.contentWindow
          inside.postMessage = (data) => this.dispatchEvent(new MessageEvent('message', { data }))
          const script = inside.document.createElement('script')
          script.src = address
          script.onload = () => resolve(inside)
          script.onerror = () => reject(new Error(`${address} cannot be loaded`))
          inside.document.body.append(script)
        }
        this.frame.addEventListener('load', start, { once: true }) // some browsers make its document anew until then
      })
      document.body.append(this.frame)
    }

    postMessage(data) {
      this.loaded.then((inside) => inside.dispatchEvent(new inside.MessageEvent('message', { data })))
    }

    terminate() {
      this.frame.remove()
    }
  }
}
