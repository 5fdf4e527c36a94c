/** Bringing a dataset's code into a notebook. */

import { Dialog, Notification, showDialog } from '@jupyterlab/apputils';
import { JupyterFrontEnd } from '@jupyterlab/application';
import { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { MimeData } from '@lumino/coreutils';
import { Drag } from '@lumino/dragdrop';

import { Problem } from '../api';

const CELLS = 'application/vnd.jupyter.cells';
const DRAG_THRESHOLD_PX = 5;

function codeCell(source: string): { cell_type: string; source: string; metadata: {} } {
  return { cell_type: 'code', source, metadata: {} };
}

/** Put `source` into a cell below the active one, or into the active one if that is code and empty. */
export function insertCell(panel: NotebookPanel, source: string): void {
  const notebook = panel.content;
  const model = notebook.model;
  if (!model || model.readOnly) {
    throw new Problem(
      'This notebook cannot be changed.',
      'Open one that you may write.'
    );
  }
  const active = notebook.activeCell?.model;
  if (active?.type === 'code' && !active.sharedModel.getSource()) {
    active.sharedModel.setSource(source);
    return;
  }
  const index = notebook.activeCellIndex + 1;
  model.sharedModel.insertCell(index, codeCell(source));
  notebook.activeCellIndex = index;
  notebook.deselectAll();
}

/** Insert into the notebook at hand; where there is none, offer to make one. */
export async function insert(
  app: JupyterFrontEnd,
  tracker: INotebookTracker | null,
  source: string
): Promise<void> {
  const panel = tracker?.currentWidget ?? (await newNotebook(app));
  if (!panel) {
    return;
  }
  await panel.context.ready;
  insertCell(panel, source);
  app.shell.activateById(panel.id);
  const language = languageOf(app, panel);
  if (language && language !== 'python') {
    Notification.warning(
      `The inserted cell is Python; the kernel of this notebook runs ${language}.`
    );
  }
}

async function newNotebook(app: JupyterFrontEnd): Promise<NotebookPanel | null> {
  const answer = await showDialog({
    title: 'No notebook is open',
    body: 'The code can go into a new notebook.',
    buttons: [
      Dialog.cancelButton(),
      Dialog.okButton({ label: 'New notebook' })
    ]
  });
  if (!answer.button.accept) {
    return null;
  }
  const made: unknown = await app.commands.execute('notebook:create-new', {
    kernelName: app.serviceManager.kernelspecs.specs?.default,
    activate: true
  });
  return made instanceof NotebookPanel ? made : null;
}

function languageOf(app: JupyterFrontEnd, panel: NotebookPanel): string {
  const kernel = panel.sessionContext.session?.kernel?.name ?? '';
  const spec = app.serviceManager.kernelspecs.specs?.kernelspecs[kernel];
  return spec?.language ?? panel.model?.defaultKernelLanguage ?? '';
}

/** Begin to drag `source` as a cell once the pointer has moved far enough from where it went down. */
export function dragCell(
  down: { clientX: number; clientY: number },
  label: string,
  source: string
): void {
  const moved = (event: PointerEvent) => {
    const far = Math.hypot(
      event.clientX - down.clientX,
      event.clientY - down.clientY
    );
    if (far >= DRAG_THRESHOLD_PX) {
      stop();
      start(event, label, source);
    }
  };
  const stop = () => {
    document.removeEventListener('pointermove', moved, true);
    document.removeEventListener('pointerup', stop, true);
    document.removeEventListener('pointercancel', stop, true);
  };
  document.addEventListener('pointermove', moved, true);
  document.addEventListener('pointerup', stop, true);
  document.addEventListener('pointercancel', stop, true);
}

function start(event: PointerEvent, label: string, source: string): void {
  const dragImage = document.createElement('div');
  dragImage.className = 'tp-drag-image';
  dragImage.textContent = label;
  const mimeData = new MimeData();
  mimeData.setData(CELLS, [codeCell(source)]);
  mimeData.setData('text/plain', source);
  const drag = new Drag({
    mimeData,
    dragImage,
    supportedActions: 'copy',
    proposedAction: 'copy'
  });
  void drag
    .start(event.clientX, event.clientY)
    .finally(() => drag.dispose());
}
