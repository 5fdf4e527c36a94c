/** Ending the workspace where nothing can be saved: ask in the platform's words, save what is open, leave for its page. */

import { JupyterFrontEnd } from '@jupyterlab/application';
import { Dialog, showDialog } from '@jupyterlab/apputils';

import { saveAll } from './leave';
import { WorkspaceModel } from './model';

export async function stop(
  app: JupyterFrontEnd,
  model: WorkspaceModel
): Promise<void> {
  const answer = await showDialog({
    title: `Stop ${model.config.name}?`,
    body: model.question('stop_discard'),
    defaultButton: 0,
    buttons: [
      Dialog.cancelButton({ label: 'Keep it' }),
      Dialog.warnButton({ label: 'End and discard', className: 'tp-stop-now' })
    ]
  });
  if (answer.button.accept) {
    await saveAll(app);
    await model.stop();
    window.location.assign(model.page);
  }
}
