/** Where a large view goes: a tab of the main area, or a dialog in applications with one document only. */

import { JupyterFrontEnd } from '@jupyterlab/application';
import { Dialog, MainAreaWidget, showDialog } from '@jupyterlab/apputils';
import { LabIcon } from '@jupyterlab/ui-components';
import { Widget } from '@lumino/widgets';

const opened = new Map<string, MainAreaWidget>();

export interface IView {
  id: string;
  title: string;
  icon: LabIcon;
  make: () => Widget;
}

/** Show a view; the tab that already shows it comes to the front. */
export async function open(app: JupyterFrontEnd, view: IView): Promise<void> {
  const there = opened.get(view.id);
  if (there && !there.isDisposed) {
    app.shell.activateById(there.id);
    return;
  }
  const widget = new MainAreaWidget({ content: view.make() });
  widget.toolbar.hide();
  widget.id = `torpor-${view.id}`;
  widget.title.label = view.title;
  widget.title.icon = view.icon;
  widget.title.closable = true;
  app.shell.add(widget, 'main');
  if (widget.isAttached) {
    opened.set(view.id, widget);
    widget.disposed.connect(() => opened.delete(view.id));
    app.shell.activateById(widget.id);
  } else {
    widget.addClass('tp-in-dialog');
    await showDialog({
      title: view.title,
      body: widget,
      buttons: [Dialog.okButton({ label: 'Close' })]
    });
  }
}
